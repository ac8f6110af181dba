/** Icons of 24 units, drawn with lines of the text's color. */
import type { ComponentChildren } from "preact";

function Icon({ children }: { children: ComponentChildren }) {
  return (
    <svg viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

export const Play = () => <Icon><path class="solid" d="M8 5.5v13l10.5-6.5z" /></Icon>;
export const Pause = () => <Icon><path class="solid" d="M7 5.5h3.4v13H7zM13.6 5.5H17v13h-3.4z" /></Icon>;
export const Download = () => <Icon><path d="M12 4v11m-4.5-4.5L12 15l4.5-4.5M5 19.5h14" /></Icon>;
export const Trash = () => <Icon><path d="M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.3 10.5v5.5m3.4-5.5v5.5" /></Icon>;
export const Pencil = () => <Icon><path d="M5 19l.9-3.9L16.2 4.8l3 3L8.9 18.1z M14 7l3 3" /></Icon>;
export const Sliders = () => <Icon><path d="M4 7.5h8.5m4 0H20M4 16.5h3.5m4 0H20M14.5 5v5m-5 4v5" /></Icon>;
export const Share = () => <Icon><path d="M12 15V4.5M8 8l4-4 4 4M8 11H6v8.5h12V11h-2" /></Icon>;
export const Cross = () => <Icon><path d="M6.5 6.5l11 11m0-11l-11 11" /></Icon>;
export const Retry = () => <Icon><path d="M19 12a7 7 0 1 1-2.2-5.1L19 9m0-4.5V9h-4.5" /></Icon>;
export const Menu = () => <Icon><path d="M4.5 7h15M4.5 12h15M4.5 17h15" /></Icon>;
export const Person = () => (
  <Icon>
    <circle cx="12" cy="8.5" r="3.7" />
    <path d="M4.8 19.5c1-3.6 3.8-5.2 7.2-5.2s6.2 1.6 7.2 5.2" />
  </Icon>
);
export const Logo = () => (
  <svg class="logo" viewBox="0 0 64 64" aria-hidden="true" focusable="false">
    <rect width="64" height="64" rx="15" />
    <path d="M14 28v8M23 21v22M32 12v40M41 21v22M50 28v8" />
  </svg>
);
/** Sound that bursts out of a frame of a film. */
export const Burst = () => (
  <svg class="burst" viewBox="0 0 120 64" aria-hidden="true" focusable="false">
    {[10, 22, 38, 18, 30, 54, 60, 44, 26, 36, 16, 24, 8].map((height, n) => (
      <rect key={n} x={6 + n * 8.6} y={(64 - height) / 2} width="4.6" height={height} rx="2.3" />
    ))}
  </svg>
);
